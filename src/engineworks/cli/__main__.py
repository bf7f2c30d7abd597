"""`python -m engineworks.cli`: the command without its script on PATH."""

from engineworks.cli import main

raise SystemExit(main())

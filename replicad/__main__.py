"""`python -m replicad`: the same as the installed program."""

from __future__ import annotations

import sys

from replicad.cli.main import main

sys.exit(main())

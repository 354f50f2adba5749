"""`python -m proxy` is the command `penstock`."""

import sys

from proxy.cli import main

sys.exit(main())

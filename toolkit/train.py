"""Train a recipe: `accelerate launch toolkit/train.py RECIPE [KEY=VALUE ...]`; the same as `distill train`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The launcher puts this folder in front of the path; its modules are to be found as `toolkit.x` only.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from toolkit.cli import check_words, main
    from toolkit.errors import UserError
    from toolkit.launcher import heed_launcher
    from toolkit.library_output import set_environment
    from toolkit.terminal_text import visible

    if "--verbose" not in sys.argv[1:]:
        set_environment()  # here, for the processes that the next line may start
    try:
        heed_launcher(__file__, sys.argv[1:], lambda: check_words(["train", *sys.argv[1:]]))
    except UserError as error:
        print(visible(str(error)), file=sys.stderr)
        sys.exit(2)
    sys.exit(main(["train", *sys.argv[1:]]))

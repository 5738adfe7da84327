"""Write the file of a whole model that ships (moe_codesign/models/whole/) from a public copy of its config.json.

    python benchmarks/shipped/whole_models.py NAME CONFIG.json "SOURCE" [--without quantization_config ..]

SOURCE names the public copy. Only the fields that are read are kept.
"""

import argparse
import json
from pathlib import Path

from moe_codesign.models.whole_catalogue import write_whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("config", type=Path)
    parser.add_argument("source")
    parser.add_argument("--without", nargs="*", default=[], help="fields of the copy that are not the model's own")
    options = parser.parse_args()
    config = json.loads(options.config.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in options.without}
    print(write_whole(kept, name=options.name, source=options.source))


if __name__ == "__main__":
    main()

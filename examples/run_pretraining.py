"""Pre-trains MERT from a YAML file of arguments, on one device or many.

    python examples/run_pretraining.py examples/configs/mert-nano.yaml --train_data MUSIC --output_dir outputs/nano
    accelerate launch --config_file examples/configs/ddp.yaml examples/run_pretraining.py \
        examples/configs/mert-95m.yaml --train_data MUSIC --output_dir outputs/mert-95m

Options override the file, and `--help` lists them all. The same command resumes an interrupted run.
"""

import logging
import sys

from mert_hf.pretraining.run import main

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    main(sys.argv[1:])

"""`python -m mert_hf.cli`, as `accelerate launch -m` starts it."""

from .app import main

if __name__ == "__main__":
    main()

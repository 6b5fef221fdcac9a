"""What tests build: ECG files of every format, checkpoints, cohorts, runs."""

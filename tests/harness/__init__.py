"""What tests run things with: faults, damage, scripts for reading processes, stand-ins."""

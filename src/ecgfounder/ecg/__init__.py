"""An ECG in memory: recordings, leads, what the device said of it, its drawing."""

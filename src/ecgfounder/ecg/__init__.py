"""An ECG in memory: recordings, leads, statements of the device, drawing."""

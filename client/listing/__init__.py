"""Which images a folder holds, in the layouts that there are: DICOM, BIDS, Decathlon, plain."""

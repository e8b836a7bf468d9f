"""De-identification of DICOM by the Basic Profile (PS3.15, annex E), with a site's pseudonyms."""

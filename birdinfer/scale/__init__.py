"""An archive that has outgrown one machine: units of whole files, predicted anywhere, gathered into one result."""

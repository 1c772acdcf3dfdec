"""Getting a public release of the Watkins archive: downloaded and verified, a folder a species, a table of sites."""

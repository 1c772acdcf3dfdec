"""Getting a public release of the Watkins archive: downloaded, verified, one folder a species, with a table of sites."""

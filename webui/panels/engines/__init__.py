"""The tab of engines: what serves, models to download, building, comparing."""

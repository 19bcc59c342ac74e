"""Reports: runs and studies as self-contained HTML pages."""

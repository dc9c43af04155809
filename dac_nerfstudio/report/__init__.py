"""From run folders to figures, tables and pages."""

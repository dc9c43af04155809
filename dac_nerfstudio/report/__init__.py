"""Reports: figures, tables and pages, made from run folders."""

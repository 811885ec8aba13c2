"""What figures and pages share: style, pictures of cells, charts."""

"""Drawing of HTML pages: templates, plots, and making untrusted text harmless."""

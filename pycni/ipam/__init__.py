"""Which addresses, routes and DNS an attachment gets: from our pools, or from another plugin."""

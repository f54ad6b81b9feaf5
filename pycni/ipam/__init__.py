"""Which addresses, routes and DNS an attachment gets, from our own pools or another plugin."""

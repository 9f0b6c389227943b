"""The routes: HTTP in, HTTP out. No route knows the store or a provider."""

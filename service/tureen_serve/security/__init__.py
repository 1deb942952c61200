"""Who may do what: keys with scopes, the routes' scopes, and the guard before all routes."""

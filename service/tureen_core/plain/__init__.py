"""Plain models: folders that other libraries saved, without a manifest. They are read, never changed."""

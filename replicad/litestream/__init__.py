"""Reading replicas that Litestream wrote, so that a database can move here with its newest state."""

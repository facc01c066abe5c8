"""Who may do what: model (checked at load time), compile, decide (plain values)."""

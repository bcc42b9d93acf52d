"""Which clips validate which model."""

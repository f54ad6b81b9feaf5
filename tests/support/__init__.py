"""What tests of several directories share. Nothing in here is collected as a test."""

"""The names of networks with a fixed role."""

TEACHER, CONTROL, STUDENT = "teacher", "control", "student"

"""Diagnoses: what a student learned from its teacher, as sentences, tables and charts."""

"""What a student has learnt of its teacher, as numbers and charts without a look of their own."""

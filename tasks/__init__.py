"""What is asked: the tasks, their data, and the rules for what a submission may be."""

"""What the data path costs, in CPU time, beside nginx on the same machine in the same minute."""

"""Everything that measures or shows the program from outside; the program itself never imports it."""

module kantai/placement-c/examples/go

go 1.24

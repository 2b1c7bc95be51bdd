module networkoverhead

go 1.24

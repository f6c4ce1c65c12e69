module bramble.home.arpa/programs/probe

go 1.26.0

module apiproxy

go 1.26

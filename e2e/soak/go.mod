module apiproxy/e2e/soak

go 1.26

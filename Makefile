# Aliases only; dev.py does the work and needs no make.
.PHONY: run test lint bench

run test lint bench:
	@python3 dev.py $@

# The commands of a developer. Each is a script that can be read and run by itself.
.PHONY: help run test bench setup sqlx web deb clean

help:
	@echo "make run    build both programs, start a relay and an agent on this machine, print the address"
	@echo "make test   install what the tests need and run everything"
	@echo "make bench  measure the release programs beside a raw terminal, a floor and tmux (10 minutes)"
	@echo "make setup  only install what the tests need"
	@echo "make sqlx   write relay/.sqlx anew, after a query or a migration changed"
	@echo "make web    build the web app (relay/web/dist)"
	@echo "make deb    build both Debian packages into dist/"
	@echo "make clean  remove what was built (not the data of make run)"

run:
	@installers/dev-run.sh

test:
	@.ci/test.sh

bench:
	@.ci/bench.sh

setup:
	@.ci/setup.sh

sqlx:
	@relay/prepare-sqlx.sh

web:
	@installers/build.sh web

deb:
	@installers/build.sh deb

clean:
	@rm -rf target dist relay/web/dist relay/web/node_modules tests/web/node_modules .tools

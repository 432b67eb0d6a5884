# List the recipes
default:
    @just --list

# Run everything on this machine, without containers
dev *args:
    ./run dev {{ args }}

# Run all tests
test *args:
    ./run test {{ args }}

# Check formatting, lints and documentation
check:
    .ci/run check

# Measure throughput and latency under load
bench *args:
    ./run setup
    cargo bench --bench load -- {{ args }}

# Let faults strike at random, and prove that no promise breaks
chaos *args:
    ./run setup
    cargo bench --bench chaos -- {{ args }}

# Roll from the executable of an earlier version to this one and back under load, without a failed request
rolling old *args:
    ./run setup
    cargo bench --bench rolling -- --old {{ old }} {{ args }}

# Kill, stop and cut off nodes of RabbitMQ and PostgreSQL, three of each, under a running system
cluster *args:
    ./run setup
    cargo bench --bench cluster -- {{ args }}

# Take the pictures of the console in docs/images
pictures:
    ./run setup
    command -v chromedriver
    rm -rf target/tmp/console
    cargo test --locked --test it -- console::looks
    cp target/tmp/console/console-*.png docs/images/

# Build the image and start everything in containers
up:
    POINT_SYSTEM_COMMIT=$(git rev-parse --short=12 HEAD || true) docker compose up --build --detach --wait

# Build the Debian package
deb:
    deploy/debian/build

# Follow the logs of the workers
worker-logs:
    docker compose logs --follow work

# Stop the containers, and keep their data
stop:
    docker compose stop

# Remove the containers and their data
rm:
    docker compose down --volumes

# What nodes of a cluster run. With `ebflow submit` the code comes with the job; on Kubernetes it
# is the image's.
FROM rayproject/ray:2.60.0-py311
WORKDIR /home/ray/ebflow
COPY --chown=ray pyproject.toml README.md LICENSE ./
COPY --chown=ray ebflow ebflow
COPY --chown=ray pipelines pipelines
COPY --chown=ray tuning tuning
RUN pip install --no-cache-dir ".[system]"

# What nodes of a cluster run. With `ebflow submit` the code comes with the job; on Kubernetes it
# is the image's. Dependencies are a layer below the code's: they stay while only code changes.
FROM rayproject/ray:2.60.0-py311
WORKDIR /home/ray/ebflow
COPY --chown=ray pyproject.toml requirements.lock README.md LICENSE ./
RUN mkdir ebflow pipelines tuning && echo '__version__ = "0"' > ebflow/__init__.py
RUN pip install --no-cache-dir --constraint requirements.lock ".[system]"
COPY --chown=ray ebflow ebflow
COPY --chown=ray pipelines pipelines
COPY --chown=ray tuning tuning
RUN pip install --no-cache-dir --no-deps --force-reinstall .

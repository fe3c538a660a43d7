FROM quay.io/astronomer/astro-runtime:13.11.0-python-3.11-base

# Everything up to the last block changes only with the packages: a new DAG does not reinstall torch.
USER root
COPY packages.txt .
RUN /usr/local/bin/install-system-packages

# uv rather than the image's pip: pyproject.toml holds an override without which astro-sdk-python and Airflow do not resolve.
# The CPU build of torch: the workers validate, evaluate and hand over; the CUDA build would add several GB.
# wheels/ is empty unless you put torch there because PyTorch's index is out of reach.
# Then headers, the packages' own tests and tools go, and what Airflow and the trainer import is compiled, once for all
# processes: user astro cannot write bytecode here. pyproject.toml also sets pytest up for a developer's machine: it goes too.
COPY pyproject.toml requirements.txt ./
RUN --mount=type=bind,source=wheels,target=/tmp/wheels \
    pip install --no-cache-dir uv==0.13.8 \
 && if ls /tmp/wheels/torch-*.whl; then torch=--find-links=/tmp/wheels; else torch=--torch-backend=cpu; fi \
 && uv pip install --system --no-cache $torch -r requirements.txt \
 && pip uninstall --yes uv \
 && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" \
 && rm -rf torch/include torch/test pyarrow/include pyarrow/tests \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && AIRFLOW_HOME=/tmp/compile python -c "import airflow.cli.cli_parser, airflow.jobs.scheduler_job_runner, \
    airflow.jobs.triggerer_job_runner, airflow.www.app, airflow.providers.amazon.aws.triggers.s3, \
    airflow.providers.cncf.kubernetes.operators.pod, airflow.providers.postgres.hooks.postgres, astro.sql, aiobotocore.session, \
    mlflow, pyarrow.parquet, pydantic_settings, s3fs, sklearn.metrics; from transformers import Trainer; \
    import transformers.models.bert.modeling_bert" \
 && rm -rf /tmp/compile "$AIRFLOW_HOME/pyproject.toml" \
 && install -d -o astro -g 0 "$AIRFLOW_HOME/.cache" "$AIRFLOW_HOME/.cache/huggingface"

# True of every deployment: Astro SDK tables and files pass through XCom, frames through object storage. In which bucket, each
# deployment says itself (AIRFLOW__ASTRO_SDK__XCOM_STORAGE_URL).
ENV AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES="airflow.* astro.*" \
    AIRFLOW__ASTRO_SDK__XCOM_STORAGE_CONN_ID=aws_default

# By name, so that a forgotten kubeconfig or key in the project's folder does not get into the image; .dockerignore keeps
# them out of these three folders.
USER astro
COPY --chown=astro:0 include include
COPY --chown=astro:0 plugins plugins
COPY --chown=astro:0 dags dags

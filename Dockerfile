FROM quay.io/astronomer/astro-runtime:13.11.0-python-3.11-base

# Everything up to the last COPY changes only with the packages: a new DAG does not reinstall torch.
USER root
COPY packages.txt .
RUN /usr/local/bin/install-system-packages

# uv rather than the image's pip: pyproject.toml holds an override without which astro-sdk-python and Airflow do not resolve.
# The CPU build of torch: the workers validate, evaluate and hand over; the CUDA build would add several GB.
COPY pyproject.toml requirements.txt ./
RUN pip install --no-cache-dir uv==0.13.8 \
 && uv pip install --system --no-cache --torch-backend=cpu -r requirements.txt \
 && pip uninstall --yes uv

# True of every deployment: Astro SDK tables and files pass through XCom, frames through object storage.
ENV AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES="airflow.* astro.*" \
    AIRFLOW__ASTRO_SDK__XCOM_STORAGE_CONN_ID=aws_default \
    AIRFLOW__ASTRO_SDK__XCOM_STORAGE_URL=s3://bert/xcom

USER astro
COPY --chown=astro:0 . .

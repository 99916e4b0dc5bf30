"""Models on servers that speak the OpenAI protocol: one endpoint, pools of them, and the URIs that name them."""

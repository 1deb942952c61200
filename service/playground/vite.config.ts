import { defineConfig } from "vite";

export default defineConfig({
  base: "/playground/",
  build: {
    outDir: "../tureen_serve/playground",
    emptyOutDir: true,
    assetsDir: "", // one flat folder, which the server lists
    assetsInlineLimit: 0, // the page's policy allows no data: URLs
    modulePreload: false,
    target: "es2023",
  },
  server: { proxy: { "^/(v1|health|metrics)": "http://127.0.0.1:8900" } },
});

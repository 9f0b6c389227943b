"""Updates as users meet them: the preview, and every release with every edit."""
